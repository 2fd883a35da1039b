"""Reading ONNX files: `file` is the door, `operators` the table of what is known."""
