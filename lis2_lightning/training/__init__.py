"""The LightningModule, its loss over the effective batch, and its scores."""
