"""The servers that Convserve is compared with. Imports nothing of this package."""
