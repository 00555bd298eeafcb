"""What every model needs: sessions, serving, kernels. It knows no medicine."""

import os

# ONNX Runtime (1.29 and later) keeps an identifier of the device and tells its maker what ran, unless this is
# in the environment before it is imported. Nothing leaves a device unasked; processes we start inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
