"""What the drivers of both sides share: the engine around a node, the lane, its batches on the wire, the server."""
