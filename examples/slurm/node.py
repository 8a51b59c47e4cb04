"""usage: node.py PLAN.json [WAVE NUMBER]

Runs a node of a plan of layerbuild. Without WAVE and NUMBER it prints the number of nodes of each wave.
"""
import json
import os
import sys

with open(sys.argv[1]) as f:
    nodes = json.load(f)["nodes"]
waves = [[n for n in nodes if n["wave"] == w] for w in range(1 + max(n["wave"] for n in nodes))]
if len(sys.argv) == 2:
    print(*[len(w) for w in waves])
else:
    args = waves[int(sys.argv[2])][int(sys.argv[3])]["args"]
    os.execvp(args[0], args)
