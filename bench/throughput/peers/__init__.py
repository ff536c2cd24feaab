"""The servers that Convserve is compared with."""
