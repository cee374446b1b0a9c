"use strict";
// Reads /status, /streams and /events of the daemon that served this page, once a second. Nothing can be changed from here.

const EVERY_MS = 1000;
const POINTS = 300;
const STREAMS = 100;

const place = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function inWords(value, unit) {
    const prefixes = ["", "k", "M", "G", "T", "P"];
    let at = 0;
    while (value >= 999.5 && at < prefixes.length - 1) {
        value /= 1000;
        at += 1;
    }
    return `${at === 0 ? Math.round(value) : value.toPrecision(3)} ${prefixes[at]}${unit}`;
}

function time(ms) {
    return `${new Date(ms).toISOString().slice(0, 19).replace("T", " ")}Z`;
}

function plot(id, tint, show) {
    const axis = (more) => ({
        stroke: () => colour("--quiet"),
        grid: { stroke: () => colour("--line"), width: 1 },
        ticks: { stroke: () => colour("--line"), width: 1 },
        ...more,
    });
    const here = place(id);
    const made = new uPlot({
        width: here.clientWidth || 320,
        height: 190,
        legend: { show: false },
        cursor: { show: false },
        scales: { y: { range: (_, least, most) => [0, Math.max(most * 1.1, 1e-6)] } },
        axes: [axis({}), axis({ size: 96, values: (_, ticks) => ticks.map(show) })],
        series: [{}, { stroke: () => colour(tint), width: 2, points: { show: false } }],
    }, [[], []], here);
    new ResizeObserver(() => made.setSize({ width: here.clientWidth, height: 190 })).observe(here);
    return made;
}

function row(cells) {
    const made = document.createElement("tr");
    for (const [text, kind] of cells) {
        const cell = document.createElement("td");
        cell.textContent = text;
        if (kind) cell.className = kind;
        made.append(cell);
    }
    return made;
}

function item(text) {
    const made = document.createElement("li");
    made.textContent = text;
    return made;
}

function fact(name, value) {
    const made = document.createElement("div");
    const term = document.createElement("dt");
    const said = document.createElement("dd");
    term.textContent = name;
    said.textContent = value;
    made.append(term, said);
    return made;
}

function health(state, reasons) {
    place("state").textContent = state;
    place("state").className = state === "delivering" || state === "ready" ? "good" : "";
    place("reasons").replaceChildren(...reasons.map((reason) => item(`${reason.cause}: ${reason.text}`)));
}

function showStatus(status) {
    const { module, link, agreement, pool, card, key, push, ledger } = status;
    document.title = `QKD module ${module.name}: ${status.health.state}`;
    place("name").textContent = module.name;
    place("about").textContent = `${module.role}, qkdd ${module.version}, up ${module.uptime_s} s`;
    health(status.health.state, status.health.reasons);
    const lost = Object.values(key.lost).reduce((sum, bits) => sum + bits, 0);
    const latency = push.latency.counts.reduce((sum, count) => sum + count, 0);
    place("facts").replaceChildren(
        fact("QKD link", `${link.state}, since ${time(link.since_unix_ms)}`),
        fact("Other module", agreement.connected ? (agreement.in_step ? "in step" : "not in step") : "away"),
        fact("Epoch", String(agreement.epoch)),
        fact("Card", `${card.serial}, ${card.role}${card.test_key ? ", TEST KEY" : ""}`),
        fact("Pool", `${inWords(pool.held_bytes, "B")} of ${inWords(pool.vault_bytes, "B")}`),
        fact("Key accepted", inWords(key.accepted, "bit")),
        fact("Key lost, burnt", `${inWords(lost, "bit")}, ${inWords(key.burnt, "bit")}`),
        fact("Push latency, mean", latency ? `${(push.latency.sum_s / latency * 1e3).toPrecision(3)} ms` : "none yet"),
        fact("Ledger", `write ${ledger.write_number}`),
    );
}

function showStreams(streams) {
    const slow = streams.toSorted((one, other) => other.lag_chunks - one.lag_chunks);
    const good = (state) => (state === "delivering" || state === "waiting" || state === "closing" ? "" : "bad");
    place("streams").replaceChildren(...slow.slice(0, STREAMS).map((stream) => row([
        [stream.id], [`${stream.state}: ${stream.words}`, good(stream.state)], [stream.source], [stream.destination],
        [`${stream.chunk_size} B`, "number"], [stream.granted, "number"], [stream.accepted, "number"],
        [`${stream.lag_chunks} (${inWords(stream.lag_bytes, "B")})`, "number"],
    ])));
    const more = streams.length - STREAMS;
    place("more").textContent = streams.length === 0 ? "No key stream is open."
        : more > 0 ? `and ${more} with less lag; qkdctl streams shows all` : "";
}

function showEvents(events) {
    place("events").replaceChildren(...events.toReversed().slice(0, 50).map((event) => row([
        [time(event.unix_ms)], [event.level, event.level === "error" ? "bad" : ""], [event.id], [event.text],
    ])));
}

const plots = {
    rate: plot("rate", "--rate", (value) => inWords(value, "bit/s")),
    qber: plot("qber", "--qber", (value) => `${value.toPrecision(2)} %`),
};
const course = { at: [], rate: [], qber: [] };
let last = 0;

function draw({ measured }) {
    if (!measured) return;
    place("rate-now").textContent = inWords(measured.secret_key_rate_bps, "bit/s");
    place("qber-now").textContent = `${(measured.qber * 100).toFixed(2)} %`;
    if (measured.unix_ms <= last) return;
    last = measured.unix_ms;
    course.at.push(measured.unix_ms / 1000);
    course.rate.push(measured.secret_key_rate_bps);
    course.qber.push(measured.qber * 100);
    for (const values of Object.values(course)) {
        if (values.length > POINTS) values.shift();
    }
    plots.rate.setData([course.at.slice(), course.rate.slice()]);
    plots.qber.setData([course.at.slice(), course.qber.slice()]);
}

async function read(path) {
    const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(8000) });
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer.json();
}

async function look() {
    try {
        const [status, streams, events] = await Promise.all([read("/status"), read("/streams"), read("/events")]);
        showStatus(status);
        draw(status.link);
        showStreams(streams.streams);
        showEvents(events.events);
    } catch (error) {
        health("not reachable", [{ cause: "page", text: `the daemon does not answer this page (${error.message})` }]);
    }
    setTimeout(look, EVERY_MS);
}

// A browser that changes between light and dark has the plots drawn anew.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    plots.rate.redraw();
    plots.qber.redraw();
});
// For the tests: what the plots show.
window.qkdPlots = plots;
look();
