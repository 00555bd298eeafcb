"""Models as files: `<model>/<version>/{model.onnx, manifest.json, card.md}`, and what vouches for them."""
