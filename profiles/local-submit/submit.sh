#!/bin/sh
# Stands in for a scheduler's submit command: starts a job script in the background, prints its id.
nohup sh "$1" >"$1.log" 2>&1 </dev/null &
echo $!
