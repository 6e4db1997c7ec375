"""The domain: frozen values and pure decisions about them. No input and no output."""
