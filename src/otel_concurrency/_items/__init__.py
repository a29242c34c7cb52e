"""What is put and got: when a consumer adopts an item's context, and where that lies meanwhile."""
