"""Labelled data: from files, folders, data sets and loaders to blocks of images, read when they are needed."""
