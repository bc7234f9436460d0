"""The kernels of secure mode: masks, shares, ring encoding, sums and their check. Pure, exact and streamed."""
