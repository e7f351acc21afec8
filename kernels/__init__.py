"""The primitive operations, one file per device, one contract."""
