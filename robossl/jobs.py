"""What other packages bring, named here and nowhere else: strings, resolved when a command is called."""

from __future__ import annotations

JOBS = {
    "bench-serve": (
        "robossl_serving.bench.command:bench_serve",
        "put load on a server and say how old its answers are",
    ),
    "collect": ("robossl_envs.collect:collect", "play an environment and write what is seen as a LeRobot data set"),
    "doctor": ("robossl_envs.doctor:command", "say what an environment lacks on this machine"),
    "explore-loop": (
        "robossl_envs.explore:explore_loop",
        "look where an encoder finds things new, train it, look again",
    ),
    "load": ("robossl_serving.load:load", "have a running server load a model, or roll it back to a version"),
    "serve": ("robossl_serving.command:serve", "answer control loops over gRPC, the newest frame first"),
}

# Sources of frames that `robossl probe --data KIND:NAME` may be given.
PROBE_FRAMES = {"env": "robossl_envs.probe_frames:EnvFrames"}

# An encoder by the scheme of its address: called with host:port.
ENCODERS = {"grpc": "robossl_client.client:EncoderClient"}
