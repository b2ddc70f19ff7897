"""export.py: TorchScript, ONNX and OpenVINO files, each checked against PyTorch before it is written."""
