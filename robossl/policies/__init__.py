"""Transfer: measure whether an encoder helps a policy, on the clean scene and under nuisances.

A policy is trained on scripted demonstrations for each encoder and for each control (a policy without that encoder),
and then rolled out in the same scenes.
"""
