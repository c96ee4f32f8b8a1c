<?php
// SPDX-License-Identifier: BSD-2-Clause
//
// app.php - php-fpm workers that share jobs, by FFI.
//
// PHP forgets everything after each request, the library must stay: so it is
// loaded once, by the master, before it forks (php.ini):
//
//   ffi.preload = /path/shdict.ffi.h      made by ./header, says which library
//   ffi.enable = true                     or preload, with this file preloaded
//
//   ?do=push&job=TEXT  a job for any worker; its number
//   ?do=work           takes a job, and one of two permits, and works for long
//   ?do=done           takes a job, and acknowledges it; its text, or 204
//   ?do=hammer         stores into a dict, without end
//
// Beside it runs `shdict sidecar SEGMENT`: a worker that is killed in the middle
// of work gives back what it had, and nobody needs to come by for that.

final class Shared
{
    private FFI $lib;
    private FFI\CData $jobs, $slots, $dict;

    // Attaching again, in the next request, gives what the process has.
    public function __construct(string $segment)
    {
        $this->lib = FFI::scope("shdict");
        $handle = $this->lib->new("shd_segment *");
        $this->must($this->lib->shd_segment_attach($segment, null,
                                                   FFI::addr($handle)));

        $queue = $this->options("struct shd_queue_options");
        $queue->capacity_bytes = 1 << 20;
        $queue->deliveries_max = 5;
        $this->jobs = $this->lib->new("shd_queue *");
        $this->must($this->lib->shd_queue_open($handle, "jobs",
            FFI::addr($queue), FFI::addr($this->jobs)));

        $slots = $this->options("struct shd_lock_options");
        $slots->flags = $this->lib->SHD_LOCK_CREATE;
        $slots->permits = 2;
        $this->slots = $this->lib->new("shd_lock *");
        $this->must($this->lib->shd_lock_open($handle, "slots",
            $this->lib->SHD_OBJECT_SEMAPHORE, FFI::addr($slots),
            FFI::addr($this->slots)));

        $this->dict = $this->lib->new("shd_dict *");
        $this->must($this->lib->shd_dict_open($handle, "d", null,
                                              FFI::addr($this->dict)));
    }

    private function options(string $type): FFI\CData
    {
        $options = $this->lib->new($type); // zeroes
        $options->struct_size = FFI::sizeof($options);
        return $options;
    }

    private function must(int $code): int
    {
        if ($code < 0) {
            throw new RuntimeException($this->lib->shd_last_error());
        }
        return $code;
    }

    public function push(string $job): int
    {
        $number = $this->lib->new("uint64_t");
        $this->must($this->lib->shd_queue_push($this->jobs, $job,
            strlen($job), 0, 0, FFI::addr($number)));
        return $number->cdata;
    }

    // [text, lease], or null.
    public function take(): ?array
    {
        $size = 65536;
        $buffer = $this->lib->new("char[$size]");
        $m = $this->lib->new("struct shd_message");
        $code = $this->lib->shd_queue_take($this->jobs, $buffer, $size, 0,
                                           FFI::addr($m));
        if ($code === $this->lib->SHD_NOTFOUND) {
            return null;
        }
        $this->must($code);
        return [FFI::string($buffer, $m->len), $m->lease];
    }

    public function ack(int $lease): void
    {
        $this->must($this->lib->shd_queue_ack($this->jobs, $lease));
    }

    public function acquire(): int
    {
        $grant = $this->lib->new("struct shd_grant");
        $this->must($this->lib->shd_lock_acquire($this->slots, 5000, 0,
                                                 FFI::addr($grant)));
        return $grant->token;
    }

    public function release(int $token): void
    {
        $this->must($this->lib->shd_lock_release($this->slots, $token));
    }

    public function store(string $key, string $value): void
    {
        $this->must($this->lib->shd_set($this->dict, $key, strlen($key),
                                        $value, strlen($value), 0));
    }
}

function work(Shared $shared, float $seconds): ?string
{
    $job = $shared->take();
    if ($job === null) {
        return null;
    }
    $token = $shared->acquire();
    usleep((int)($seconds * 1e6));
    $shared->release($token);
    $shared->ack($job[1]);
    return $job[0];
}

function hammer(Shared $shared): never
{
    for ($i = 0;; $i++) {
        $shared->store("key-" . $i % 2000, str_repeat("v", $i * 37 % 6000));
    }
}

$shared = new Shared(getenv("SHDICT_SEGMENT") ?: $_SERVER["SHDICT_SEGMENT"]);
$body = match ($_GET["do"] ?? "") {
    "push" => (string)$shared->push($_GET["job"]),
    "work" => work($shared, (float)($_GET["seconds"] ?? 1000)),
    "done" => work($shared, 0),
    "hammer" => hammer($shared),
    default => null,
};
header("Content-Type: text/plain");
if ($body === null) {
    http_response_code(204);
} else {
    echo $body;
}
