"""Which libdqlite a test or benchmark runs on, and how to compile against it and start programs on it.

A library is named by
  bookworm | trixie | sid    the packaged C library of that Debian release (tools/peers fetches it), run on that release's own libc
  PREFIX                     an installed tree (the result of `make install`): header, pkg-config file, libdqlite.so.0
  LIBDIR                     any folder with libdqlite.so.0 and libdqlite.so
As a command:  library.py NAME libdir|cflags|libs|version
"""
import glob
import os
import subprocess
import sys

TOOLS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(TOOLS)
SUITES = ("bookworm", "trixie", "sid")


def peer(suite):
    """The folder of one Debian release's packages; fetched when it is not there."""
    done = subprocess.run([os.path.join(TOOLS, "peers"), suite], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"the packages of {suite} could not be fetched (see above): no baseline, no result")
    return done.stdout.strip()


def find_libdir(prefix):
    """The folder below (or at) `prefix` that holds libdqlite.so.0."""
    places = [prefix, f"{prefix}/lib", f"{prefix}/lib64", *glob.glob(f"{prefix}/lib/*-linux-gnu")]
    for place in places:
        if os.path.exists(f"{place}/libdqlite.so.0"):
            return os.path.realpath(place)
    sys.exit(f"no libdqlite.so.0 in {' '.join(places)}")


def link(target, path):
    """Makes `path` a link to `target`; several programs may do so at once."""
    if not os.path.islink(path) or os.readlink(path) != target:
        mine = f"{path}.{os.getpid()}"
        os.symlink(target, mine)
        os.replace(mine, path)


class Library:
    def __init__(self, name, runtime=None):
        """`runtime`: run on this Debian release's libc and SQLite instead of the system's."""
        self.name = name
        suite = name if name in SUITES else None
        self.is_c = suite is not None
        self.runtime = peer(suite or runtime) if suite or runtime else None
        self.prefix = os.path.join(self.runtime, "root/usr") if suite else os.path.abspath(name)
        self.libdir = find_libdir(self.prefix)
        self.file = os.path.realpath(os.path.join(self.libdir, "libdqlite.so.0"))

    def label(self):
        return f"C {self.packaged_version()} ({self.name})" if self.is_c else self.name

    def packaged_version(self):
        with open(os.path.join(self.runtime, "version")) as f:
            return f.read().strip()

    def environment(self, **more):
        env = dict(os.environ, **more)
        env.pop("OVERRIDE", None)
        if not self.is_c:
            env["OVERRIDE" if self.runtime else "LD_LIBRARY_PATH"] = self.libdir
        return env

    def command(self, argv):
        """The command line that starts `argv` with this library."""
        return [os.path.join(self.runtime, "run"), *argv] if self.runtime else list(argv)

    def stage(self, build):
        """A folder with nothing but the header and the libraries to link with: a whole release's /usr would bring its libc along."""
        stage = os.path.join(build, "stage", self.prefix.strip("/").replace("/", "_"))
        os.makedirs(f"{stage}/include", exist_ok=True)
        os.makedirs(f"{stage}/lib", exist_ok=True)
        # A bare folder of libraries is this project's own build.
        headers = f"{self.prefix}/include" if os.path.exists(f"{self.prefix}/include/dqlite.h") else f"{ROOT}/include"
        link(f"{headers}/dqlite.h", f"{stage}/include/dqlite.h")
        for name in ("libdqlite.so", "libdqlite.so.0"):
            link(self.file, f"{stage}/lib/{name}")
        return stage

    def flags(self, build):
        """(compiler flags, linker flags). From the pkg-config file where the library is installed."""
        pc = os.path.join(self.libdir, "pkgconfig")
        if not self.is_c and os.path.exists(f"{pc}/dqlite.pc"):
            env = dict(os.environ, PKG_CONFIG_PATH=pc)
            ask = lambda what: subprocess.run(["pkg-config", what, "dqlite"], env=env, check=True, stdout=subprocess.PIPE,
                                              text=True).stdout.strip()
            return ask("--cflags"), ask("--libs")
        stage = self.stage(build)
        return f"-I{stage}/include", f"-L{stage}/lib -ldqlite"

    def defines(self, symbol):
        out = subprocess.run(["nm", "-D", "--defined-only", self.file], check=True, stdout=subprocess.PIPE, text=True).stdout
        return any(line.split()[-1] == symbol for line in out.splitlines())

    def compile(self, source, program, build):
        """Builds a C program on this library. What the library itself needs is found at run time."""
        cflags, libs = self.flags(build)
        subprocess.run(["gcc", "-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", *cflags.split(), "-o", program, source,
                        *libs.split(), "-lpthread", "-Wl,--allow-shlib-undefined", "-Wl,-z,dynamic-undefined-weak"], check=True)
        return program


def newest_c():
    return Library("sid")


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in ("libdir", "cflags", "libs", "version"):
        sys.exit(__doc__)
    library, build = Library(sys.argv[1]), os.path.join(ROOT, "target", "library")
    answers = {"libdir": lambda: library.libdir, "cflags": lambda: library.flags(build)[0],
               "libs": lambda: library.flags(build)[1], "version": library.label}
    print(answers[sys.argv[2]]())


if __name__ == "__main__":
    main()
