"""One module per image format; :mod:`lis2_lightning.data.open_raster` opens them."""
