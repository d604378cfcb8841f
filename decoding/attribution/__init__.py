"""Attribution: how much each token of a text did for a number, from what the number is when other tokens stand in its place."""
