"""Where trials run: nodes, NPUs, resource tags, placement, ports, processes."""

from cluster._files import sync_folder, write_atomic, write_json

__all__ = ["sync_folder", "write_atomic", "write_json"]
