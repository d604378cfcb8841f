"""Prediction sets: a text of which parts are cut to holes, so that it stands for every text that fills them. Needs no model."""
