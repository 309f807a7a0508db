"""What a run leaves behind for other tools: its model, telemetry, report and configuration.

One entry of :mod:`inspector.exports.formats` is one format. Of its parts, only ``model`` and
``script`` import torch.
"""
