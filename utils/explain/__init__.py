"""Looking inside a trained network: class activation maps, effective receptive fields, feature maps."""
