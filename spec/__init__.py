"""The contract that gateformer's hardware and software are both written against."""
