"""The relatives of Barlow Twins, and Barlow Twins with one part taken out."""
