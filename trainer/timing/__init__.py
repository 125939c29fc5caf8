"""Where time goes: clocks of several machines, traces, the time to the first step."""
