"""all-MiniLM-L6-v2, a pretrained sentence encoder, on the accelerator."""
