"""A real RTSP server (GStreamer's) that streams pictures over and over as H.264.

Run by the system's Python, which has the bindings: `/usr/bin/python3 rtsp_server.py PORT 'FOLDER/%05d.jpg' FPS [PASSWORD]`; it
prints `ready` when it listens. With a password others get 401. The stream is `rtsp://127.0.0.1:PORT/clip`.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main() -> None:
    port, pattern, fps, *password = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f'( multifilesrc location="{pattern}" loop=true caps="image/jpeg,framerate={fps}/1" ! jpegdec ! videoconvert ! '
        "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 bframes=0 bitrate=4000 threads=1 ! "
        "video/x-h264,profile=baseline ! rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    factory.set_shared(True)
    if password:
        permissions = GstRtspServer.RTSPToken()
        permissions.set_string("media.factory.role", "user")
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic("me", password[0]), permissions)
        server.set_auth(auth)
        factory.add_role_from_structure(
            Gst.Structure.from_string("user,media.factory.access=true,media.factory.construct=true")[0]
        )
    server.get_mount_points().add_factory("/clip", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} cannot be had")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
