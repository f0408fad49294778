"""The disaggregated trial: prefill, decode and mixed instances on several nodes, and a router."""
