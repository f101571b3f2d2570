"""Receivers of callbacks on FastAPI and Django, as their documentation has it. Arguments: which, the port."""

import sys

RUNS = 0


def seen(body, verified):
    """What the handler has read, and what the guard has verified."""
    global RUNS
    RUNS += 1
    data = body.get("data") if isinstance(body, dict) else None
    data = data if isinstance(data, dict) else {}
    return {"id": data.get("task_id"), "url": data.get("video_url"), "verified": verified}


def fastapi(port):
    import uvicorn
    from fastapi import FastAPI, Request

    application = FastAPI()

    @application.get("/runs")
    def runs():
        return {"runs": RUNS}

    @application.post("/callbacks/suno")
    async def callback(request: Request):
        return seen(await request.json(), request.headers.get("x-callback-guard-id"))

    uvicorn.run(application, host="127.0.0.1", port=port, log_level="warning")


def django(port):
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    from django.conf import settings
    from django.http import JsonResponse

    settings.configure(
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["rest_framework"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        REST_FRAMEWORK={
            "DEFAULT_AUTHENTICATION_CLASSES": [],
            "DEFAULT_PERMISSION_CLASSES": [],
            "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
            "UNAUTHENTICATED_USER": None,
        },
        ROOT_URLCONF=__name__,
        SECRET_KEY="for a test",
    )
    import django as package

    package.setup()
    from django.urls import path
    from rest_framework.response import Response
    from rest_framework.views import APIView

    class Callback(APIView):
        def post(self, request):
            return Response(seen(request.data, request.headers.get("x-callback-guard-id")))

    global urlpatterns
    urlpatterns = [
        path("runs", lambda request: JsonResponse({"runs": RUNS})),
        path("callbacks/suno", Callback.as_view()),
    ]
    from django.core.wsgi import get_wsgi_application

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_):
            pass

    make_server("127.0.0.1", port, get_wsgi_application(), Server, Quiet).serve_forever()


{"fastapi": fastapi, "django": django}[sys.argv[1]](int(sys.argv[2]))
