"""Items of queues and channels: when a consumer adopts an item's context, and where it waits."""
