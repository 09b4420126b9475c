"""One file for each way an image can be stored; :mod:`lis2_lightning.data.formats` opens them."""
