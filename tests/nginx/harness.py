# SPDX-License-Identifier: BSD-2-Clause
"""What the tests inside nginx share: an nginx of their own in a directory of
its own, requests to it, and counting cases.

A case is a function named as a sentence. It fails by raising; nothing is
retried. Waiting for something that another process does is bounded by
until(), which raises when the time is over.

nginx is Debian's, unpacked by tests/nginx/fetch. Run as root its workers are
www-data's, as in Debian's nginx.conf.
"""
import glob
import http.client
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(os.environ.get("SHDICT_BUILD",
                                       os.path.join(ROOT, "build")))
SHDICT = os.path.join(BUILD, "shdict")
OURS = os.path.join(BUILD, "lua", "nginx", "?.lua")

# A dying worker holds its locks until its core is written.
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

cases = []
running = []


def fetch():
    done = subprocess.run([os.path.join(HERE, "fetch")],
                          stdout=subprocess.PIPE, timeout=300,
                          env=dict(os.environ, SHDICT_BUILD=BUILD))
    if done.returncode:
        sys.exit("%s: Debian's nginx is not to be had" % sys.argv[0])
    return done.stdout.decode().splitlines()[-1]


DEBIAN = fetch()


def user():
    """Whose the workers are: www-data, or who runs this."""
    return "www-data" if os.getuid() == 0 else pwd.getpwuid(
        os.getuid()).pw_name


def until(condition, what, seconds=30):
    """Waits until condition() is true, and gives what it gave."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "waited %d s for %s" % (seconds, what)
        time.sleep(0.02)


def same(found, wanted):
    assert found == wanted, "found %r, wanted %r" % (found, wanted)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid):
    """The live children of a process."""
    found = []
    for path in glob.glob("/proc/%d/task/*/children" % pid):
        try:
            with open(path) as f:
                found += [int(word) for word in f.read().split()]
        except OSError:
            pass
    return [child for child in found if alive(child)]


def shdict(*words):
    done = subprocess.run([SHDICT] + list(words), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    return done.returncode, done.stdout.decode()


MAIN = """\
load_module {debian}/modules/ndk_http_module.so;
load_module {debian}/modules/ngx_http_lua_module.so;
{user_line}
env LD_LIBRARY_PATH;
worker_processes {workers};
error_log {dir}/error.log {level};
pid {dir}/nginx.pid;
{main}
events {{ worker_connections 256; }}
http {{
    lua_package_path "{ours}{debian}/lua/?.lua;;";
    access_log off;
    client_body_temp_path {dir}/tmp-body;
    proxy_temp_path {dir}/tmp-proxy;
    fastcgi_temp_path {dir}/tmp-fastcgi;
    uwsgi_temp_path {dir}/tmp-uwsgi;
    scgi_temp_path {dir}/tmp-scgi;
    {zones}
    {http}
    server {{
        listen 127.0.0.1:{port};
        {server}
        location / {{
            content_by_lua_block {{
                ngx.req.read_body()
                local f, err = loadstring(ngx.req.get_body_data())
                if not f then
                    return ngx.say("error: ", err)
                end
                local function show(...)
                    local results = {{ ... }}
                    for i = 1, select("#", ...) do
                        results[i] = tostring(results[i])
                    end
                    ngx.print(table.concat(results, " "))
                end
                show(f())
            }}
        }}
    }}
    {after}
}}
"""


class Nginx:
    """One nginx. configure() writes its nginx.conf; what is given stays until
    it is given anew."""

    def __init__(self, **given):
        self.dir = tempfile.mkdtemp(prefix="shdict-nginx-")
        os.chmod(self.dir, 0o755)
        self.port = free_port()
        self.environment = {k: v for k, v in os.environ.items()
                            if not k.startswith("SHDICT_")}
        self.environment["LD_LIBRARY_PATH"] = DEBIAN + "/lib"
        self.given = dict(workers=2, level="info", main="", zones="",
                          http="", server="", after="", ours=OURS + ";",
                          user_line="user www-data;" if os.getuid() == 0
                          else "")
        self.said = ""
        self.configure(**given)
        running.append(self)

    def configure(self, **given):
        self.given.update(given)
        zones = self.given["zones"]
        if isinstance(zones, dict):
            zones = " ".join("lua_shared_dict %s %s;" % z
                             for z in zones.items())
        with open(self.dir + "/nginx.conf", "w") as f:
            f.write(MAIN.format(**dict(self.given, dir=self.dir, zones=zones,
                                       debian=DEBIAN, port=self.port)))

    # ---- the program -----------------------------------------------------

    def command(self, *words):
        return [DEBIAN + "/nginx", "-p", self.dir + "/", "-c",
                "nginx.conf"] + list(words)

    def run(self, *words, check=True):
        """nginx with these words, to its end: its output."""
        done = subprocess.run(self.command(*words), env=self.environment,
                              stdin=subprocess.DEVNULL, cwd="/",
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)
        out = done.stdout.decode()
        if check:
            assert done.returncode == 0, "nginx %s: %s" % (words, out)
        return done.returncode, out

    def start(self):
        """What it says before it has its own log is in log() as well."""
        self.said += self.run()[1]
        self.wait_ready()
        return self

    def wait_ready(self):
        until(lambda: self.pid() and alive(self.pid()), "nginx's pid")
        until(self.answers, "an answer")

    def pid(self, suffix=""):
        try:
            with open(self.dir + "/nginx.pid" + suffix) as f:
                return int(f.read() or 0)
        except (OSError, ValueError):
            return 0

    def workers(self, master=None):
        return children(master or self.pid())

    def send(self, number):
        os.kill(self.pid(), number)

    def reload(self, **given):
        """A HUP, and until the new workers have taken over."""
        self.configure(**given)
        old = set(self.workers())
        seen = len(self.log())
        self.send(signal.SIGHUP)
        until(lambda: not old & set(self.workers()) and self.workers(),
              "new workers")
        self.wait_ready()
        return self.log()[seen:]

    def stop(self, how=signal.SIGQUIT):
        pid = self.pid()
        if pid and alive(pid):
            os.kill(pid, how)
            until(lambda: not alive(pid), "the end of nginx")

    def clean(self):
        """Ends what is left of it, by its ids, and removes its files."""
        masters = [self.pid(), self.pid(".oldbin")]
        left = [p for m in masters if m for p in [m] + children(m)]
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for pid in left:
            until(lambda: not alive(pid), "the end of nginx")
        for path in self.files():
            os.unlink(path)
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- what it says -----------------------------------------------------

    def log(self):
        try:
            with open(self.dir + "/error.log", errors="replace") as f:
                return self.said + f.read()
        except OSError:
            return self.said

    def answers(self):
        try:
            return self.ask("return 1") == "1"
        except (OSError, http.client.HTTPException):
            return False

    def request(self, path, body=None, timeout=30, headers={}):
        connection = http.client.HTTPConnection("127.0.0.1", self.port,
                                                timeout=timeout)
        try:
            connection.request("POST" if body else "GET", path, body=body,
                               headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def ask(self, lua):
        """Runs it in a content phase; its results, by tostring, in a line."""
        status, text = self.request("/", lua)
        assert status == 200, "%s: %s\n%s" % (status, text, self.log()[-800:])
        return text

    # ---- its segment -------------------------------------------------------

    @property
    def segment(self):
        return "nginx-" + (self.dir + "/nginx.conf").strip("/").replace(
            "/", "-")

    def files(self):
        """The files of its segments, by name."""
        return sorted(glob.glob("/dev/shm/shdict-" + self.segment + "*"))


def case(function):
    cases.append(function)
    return function


def main(wanted=()):
    passed = failed = 0
    for function in cases:
        name = function.__name__.replace("_", " ")
        if wanted and not any(word in name for word in wanted):
            continue
        begun = time.monotonic()
        try:
            function()
            passed += 1
            print("ok %s (%.1f s)" % (name, time.monotonic() - begun))
        except Exception:
            failed += 1
            print("FAILED %s" % name)
            traceback.print_exc(file=sys.stdout)
            for nginx in running:
                print("".join("    | " + line + "\n" for line in
                              nginx.log().splitlines()[-25:]))
        finally:
            while running:
                running.pop().clean()
            sys.stdout.flush()
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0
