"""The families example: small models of every encoder family, as exporters write them."""
