"""RoboSSL: pretrain visual encoders on robot video, serve them to control loops, probe their invariances first."""

__version__ = "0.1.0"
