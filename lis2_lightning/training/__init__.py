"""The LightningModule, its loss over the whole effective batch, and its sums."""
