// The status page. Nothing of what the daemon says is ever taken for HTML: all of it goes in as text.
"use strict";

const EVERY_MS = 2000; // between two looks
const PATIENCE_MS = 5000; // for an answer
const SAMPLES = 150; // five minutes of looks
const MOST_EVENTS = 200;
const MOST_ROWS = 500; // of a table; what is down is among the first
const WORST_FIRST = ["down", "negotiating", "established", "idle"];

const $ = (id) => document.getElementById(id);
const samples = []; // of {at, in, out, dropped}: octets and packets a second
let before = null; // the last look's counters, and when
let goneSince = null;

// ---------------------------------------------------------------- words

const UNITS = ["", "k", "M", "G", "T"];
function scaled(value, unit) {
  let power = 0;
  while (value >= 999.95 && power < UNITS.length - 1) { value /= 1000; power += 1; }
  return `${power ? value.toFixed(1) : Math.round(value)} ${UNITS[power]}${unit}`;
}
function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "m"], [whole % 60, "s"]];
  const first = parts.findIndex(([number]) => number);
  return first < 0 ? "0s" : parts.slice(first, first + 2).map(([number, unit]) => number + unit).join(" ");
}
const clock = (when) => when.toLocaleTimeString([], { hour12: false });

// As kinkvpn status has it: what nothing has asked for is idle, and not down.
function stateOf(policy) {
  return policy.state === "down" && !policy.failures && !policy.last_error ? "idle" : policy.state;
}
function wrong(policy) {
  if (!policy.failures && !(policy.last_error && policy.spi_in === null)) return "";
  const next = policy.state === "negotiating" ? "trying again now"
    : policy.next_try === null ? "next try when a packet asks" : `next try in ${duration(policy.next_try)}`;
  return `${policy.last_error || "no reason given"} (${next})`;
}

// ---------------------------------------------------------------- the document

function setText(node, text) { if (node.textContent !== text) node.textContent = text; }

// Rows are kept, and only cells that differ are written: a selection and a screen reader's place survive a look.
function fill(id, all) {
  const rows = all.slice(0, MOST_ROWS);
  const more = $(`more-${id}`);
  if (more) {
    more.hidden = rows.length === all.length;
    setText(more, `${all.length - rows.length} more: kinkvpn ${id} on the host lists all.`);
  }
  const table = $(id);
  const labels = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, number) => {
    const row = body.rows[number] || newRow(body, labels, table.tHead.rows[0].cells);
    cells.forEach((cell, column) => {
      const [text, kind] = Array.isArray(cell) ? cell : [cell, null];
      setText(row.cells[column], text);
      if (kind !== null) row.cells[column].className = kind;
    });
  });
  table.hidden = rows.length === 0;
}
function newRow(body, labels, heads) {
  const row = body.insertRow();
  labels.forEach((label, column) => {
    const cell = column ? document.createElement("td") : document.createElement("th");
    if (!column) cell.scope = "row";
    cell.dataset.label = label;
    cell.className = heads[column].className;
    row.append(cell);
  });
  return row;
}

// ---------------------------------------------------------------- throughput

function note(status) {
  const at = performance.now() / 1000;
  const counters = status.counters;
  const drops = Object.values(counters.drops).reduce((sum, count) => sum + count, 0);
  const now = { pid: status.pid, at, in: counters.octets_in, out: counters.octets_out, dropped: drops };
  if (before && before.pid === now.pid && at > before.at) {
    const rate = (name) => Math.max(0, now[name] - before[name]) / (at - before.at);
    samples.push({ at, in: rate("in"), out: rate("out"), dropped: rate("dropped") });
    if (samples.length > SAMPLES) samples.shift();
  }
  before = now;
}

function path(name, top) {
  const step = 600 / (SAMPLES - 1);
  const first = 600 - (samples.length - 1) * step;
  return samples.map((sample, number) =>
    `${number ? "L" : "M"}${(first + number * step).toFixed(1)} ${(158 - 150 * sample[name] / top).toFixed(1)}`).join("");
}

function draw() {
  if (!samples.length) return;
  const newest = samples[samples.length - 1];
  const top = Math.max(1000, ...samples.map((sample) => Math.max(sample.in, sample.out)));
  const line = path("in", top);
  $("line-in").setAttribute("d", line);
  $("line-out").setAttribute("d", path("out", top));
  const first = 600 - (samples.length - 1) * 600 / (SAMPLES - 1);
  $("area-in").setAttribute("d", `${line}L600 160L${first.toFixed(1)} 160Z`);
  for (const way of ["in", "out"]) setText($(`rate-${way}`), scaled(newest[way] * 8, "bit/s"));
  setText($("rate-dropped"), `${scaled(newest.dropped, "")}packets/s`);
  setText($("graph-top"), `top: ${scaled(top * 8, "bit/s")}`);
  setText($("graph-span"), `last ${duration(newest.at - samples[0].at)}`);
  setText($("graph-title"), `Throughput of the last ${duration(newest.at - samples[0].at)}: now in ` +
    `${scaled(newest.in * 8, "bit/s")}, out ${scaled(newest.out * 8, "bit/s")}`);
}

// ---------------------------------------------------------------- what the daemon says

function show(status, sas) {
  const rank = (policy) => WORST_FIRST.indexOf(stateOf(policy));
  const worst = (peer) => Math.min(WORST_FIRST.length, ...peer.policies.map(rank));
  const peers = [...status.peers].sort((one, other) => worst(one) - worst(other));
  const policies = peers.flatMap((peer) => peer.policies).sort((one, other) => rank(one) - rank(other));
  const up = policies.filter((policy) => policy.state === "established").length;
  const headline = `${up} of ${policies.length} tunnels up`;
  setText($("state"), headline);
  document.title = `${up}/${policies.length} – kinkvpn`;
  setText($("who"), `${status.principal}, up ${duration(status.uptime)}`);
  $("keys").hidden = !status.key_log;
  setText($("keys"), status.key_log ? `Keys are written to ${status.key_log}: whoever reads it reads the tunnels.` : "");

  $("no-peers").hidden = peers.length > 0;
  fill("peers", peers.map((peer) => [
    peer.name, [peer.state, peer.policies.every((policy) => stateOf(policy) === "idle") ? "idle" : peer.state],
    peer.address || "nowhere yet", peer.principal,
    peer.last_heard === null ? "never" : `${duration(peer.last_heard)} ago`,
  ]));
  fill("policies", policies.map((policy) => [
    policy.name, [stateOf(policy), stateOf(policy)], `${policy.local} > ${policy.remote}`,
    scaled(policy.octets_in, "B"), scaled(policy.octets_out, "B"), wrong(policy),
  ]));
  fill("sas", sas.map((sa) => [
    sa.spi, sa.policy, sa.direction, sa.suite, sa.remote,
    sa.since === null || sa.lifetime === null ? "–" : duration(sa.lifetime - sa.since),
    String(sa.packets), scaled(sa.octets, "B"),
  ]));
  $("no-sas").hidden = sas.length > 0;
  const drops = Object.entries(status.counters.drops).sort((one, other) => other[1] - one[1]);
  fill("drops", drops.map(([reason, packets]) => [reason, String(packets)]));
  $("no-drops").hidden = drops.length > 0;
  about(status);
}

function about(status) {
  const offloads = Object.entries(status.offloads).filter(([, why]) => why === null).map(([name]) => name);
  const rows = [
    ["Version", `${status.version}, pid ${status.pid}`],
    ["Device", `${status.tun.name}, MTU ${status.tun.mtu}, ${status.tun.addresses.join(", ") || "no addresses"}`],
    ["Engine", `${status.engine}: ${status.ciphers}`],
    ["Offloads", offloads.join(", ") || "none"],
    ["Listening", `KINK ${status.listeners.kink.join(", ") || "on the ESP port"}; ESP ${status.listeners.esp.join(", ")}`],
    ["Tickets", status.tickets.kept ? `${status.tickets.kept}, the first ends in ${duration(status.tickets.first_ends)}` : "none"],
  ];
  const list = $("about");
  rows.forEach(([term, text], number) => {
    if (!list.children[2 * number]) list.append(document.createElement("dt"), document.createElement("dd"));
    setText(list.children[2 * number], term);
    setText(list.children[2 * number + 1], text);
  });
}

// ---------------------------------------------------------------- events

function said(event) {
  const { time, level, event: name, logger, traceback, ...fields } = event;
  const entry = document.createElement("li");
  entry.className = `${level}-level`;
  const when = document.createElement("time");
  when.dateTime = time;
  when.textContent = clock(new Date(time));
  const what = document.createElement("b");
  what.textContent = name;
  const words = Object.entries(fields).map(([field, value]) => `${field}=${value}`).join(" ");
  entry.append(when, what, ` ${words}`);
  return entry;
}

function listen() {
  const source = new EventSource("/v1/events");
  source.onmessage = (message) => {
    const list = $("events");
    list.prepend(said(JSON.parse(message.data)));
    while (list.children.length > MOST_EVENTS) list.lastElementChild.remove();
  };
  source.onopen = () => setText($("events-state"), "The newest first.");
  source.onerror = () => {
    setText($("events-state"), "Not connected: trying again.");
    // A browser gives up for good where it is answered something else; then it is for us to ask anew.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, EVERY_MS);
  };
}

// ---------------------------------------------------------------- looking again and again

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${answer.statusText}`);
  return answer.json();
}

async function look() {
  try {
    const [status, { sas }] = await Promise.all([ask("/v1/status"), ask("/v1/sas")]);
    goneSince = null;
    document.body.classList.remove("gone");
    $("gone").hidden = true;
    note(status);
    draw();
    show(status, sas);
  } catch (error) {
    gone(error);
  }
  setTimeout(look, EVERY_MS);
}

function gone(error) {
  goneSince = goneSince || new Date();
  before = null; // a new daemon counts from nought
  document.body.classList.add("gone");
  document.title = "gone – kinkvpn";
  setText($("state"), "the daemon is gone");
  $("gone").hidden = false;
  setText($("gone"), `The daemon has not answered since ${clock(goneSince)}. What is below is from before. ` +
    `Trying again every ${EVERY_MS / 1000} seconds.`);
  console.warn(error);
}

look();
listen();
