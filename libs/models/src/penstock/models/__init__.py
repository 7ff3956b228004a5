"""The model factory: import, quantise, judge, publish. The only place that knows torch."""
