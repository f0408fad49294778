"""The disaggregated trial: prefill, decode and mixed instances on several nodes, a router in front."""
