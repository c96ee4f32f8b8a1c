<?php
// SPDX-License-Identifier: BSD-2-Clause
// load.php - the protocol of shdict-bench-load for APCu: KEYS VALUE-BYTES,
// then lines "OPERATION WORKERS p MILLISECONDS u".

$keys = (int)$argv[1];
$bytes = (int)$argv[2];
$value = str_repeat("v", $bytes);
$names = [];
for ($i = 0; $i < $keys; $i++) {
    $names[] = "key:$i";
    if (!apcu_store($names[$i], $value)) {
        echo "none\n";
        exit(0);
    }
}

function percentile($sorted, $share)
{
    return $sorted[max(0, (int)ceil(count($sorted) * $share) - 1)];
}

function work($op, $ms, $seed)
{
    global $keys, $names, $value;
    $timed = [];
    $calls = 0;
    $picks = [];
    mt_srand($seed);
    for ($i = 0; $i < 65536; $i++) {
        $picks[] = $names[mt_rand(0, $keys - 1)];
    }
    $run = [
        "nothing" => fn($i) => $picks[$i],
        "get" => fn($i) => apcu_fetch($picks[$i]),
        "set" => fn($i) => apcu_store($picks[$i], $value),
        "incr1" => fn($i) => apcu_inc("counter"),
        "mix95" => fn($i) => $i % 20 == 0 ? apcu_store($picks[$i], $value)
                                          : apcu_fetch($picks[$i]),
        "mix50" => fn($i) => $i % 2 == 0 ? apcu_store($picks[$i], $value)
                                         : apcu_fetch($picks[$i]),
    ][$op];
    $cpu = function () {
        $u = getrusage();
        return ($u["ru_utime.tv_sec"] + $u["ru_stime.tv_sec"]) * 1e9 +
            ($u["ru_utime.tv_usec"] + $u["ru_stime.tv_usec"]) * 1e3;
    };
    $used = $cpu();
    $from = hrtime(true);
    $end = $from + $ms * 1e6;
    do {
        for ($i = 0; $i < 31; $i++) {
            $run(($calls + $i) & 65535);
        }
        $a = hrtime(true);
        $run(($calls + 31) & 65535);
        $timed[] = hrtime(true) - $a;
        $calls += 32;
    } while (hrtime(true) < $end);
    $ns = hrtime(true) - $from;
    $used = $cpu() - $used;
    sort($timed);
    return ["calls" => $calls, "ns" => $ns, "cpu" => $used, "timed" => array_map(
        fn($s) => percentile($timed, $s), [0.5, 0.9, 0.99, 0.999, 0.9999, 1])];
}

echo "ready\n";
while (($line = fgets(STDIN)) !== false) {
    [$op, $workers, $kind, $ms, $how] = explode(" ", trim($line));
    if (!in_array($op, ["nothing", "get", "set", "incr1", "mix95", "mix50"])
        || $kind != "p" || $how != "u") {
        echo "none\n";
        continue;
    }
    $pipes = [];
    for ($w = 0; $w < $workers; $w++) {
        $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
        if (pcntl_fork() == 0) {
            fwrite($pair[1], json_encode(work($op, (float)$ms, 17 + $w)));
            fclose($pair[1]);
            posix_kill(posix_getpid(), SIGKILL); // its shutdown is the parent's
        }
        fclose($pair[1]);
        $pipes[] = $pair[0];
    }
    $rate = $cpu = $calls = 0;
    $all = [];
    foreach ($pipes as $p) {
        $t = json_decode(stream_get_contents($p), true);
        $rate += $t["calls"] / $t["ns"] * 1e9;
        $cpu += $t["cpu"];
        $calls += $t["calls"];
        $all[] = $t["timed"];
    }
    while (pcntl_wait($status) > 0);
    $worst = fn($i) => max(array_column($all, $i));
    echo json_encode(["per_second" => $rate, "failures" => 0,
        "cpu_ns" => $cpu / $calls,
        "p50" => $worst(0), "p90" => $worst(1), "p99" => $worst(2),
        "p99.9" => $worst(3), "p99.99" => $worst(4), "max" => $worst(5)]),
        "\n";
}
