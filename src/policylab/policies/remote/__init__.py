"""Models behind an API: the endpoint and its retries, the cache of answers, the budget, and the policy over them."""
