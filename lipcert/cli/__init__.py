"""The command line: thin doors to `lipcert.api`, one small file per command."""
