"use strict";

const POLL_MS = 1000;
// A browser opens six connections to a server: four live views leave room for the rest, further ones are polled.
const LIVE_VIEWS = 4;

const figures = [];
let reachable = true;

function text(value, unit = "") {
  return value === null || value === undefined ? "–" : `${value}${unit}`;
}

function rounded(value, digits) {
  return value === null || value === undefined ? null : value.toFixed(digits);
}

function seconds(value) {
  return value < 600 ? `${value.toFixed(0)} s` : `${(value / 60).toFixed(0)} min`;
}

function addFigure(view, number) {
  const figure = document.getElementById("view").content.firstElementChild.cloneNode(true);
  const image = figure.querySelector("img");
  figure.querySelector("h2").textContent = view.source;
  figure.querySelector(".picture").href = `/snapshot/${number}.jpg`;
  image.alt = `live view of ${view.source}`;
  const full = figure.querySelector(".full");
  full.hidden = !document.fullscreenEnabled;
  full.addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : figure.requestFullscreen()));
  image.addEventListener("error", () => setTimeout(() => show(number), 2 * POLL_MS));
  document.getElementById("views").append(figure);
  figures.push(figure);
  show(number);
}

// Starts a live view anew; hidden pages let go of theirs.
function show(number) {
  const image = figures[number].querySelector("img");
  if (document.hidden) {
    image.removeAttribute("src");
  } else if (number < LIVE_VIEWS) {
    image.src = `/view/${number}.mjpg?${Date.now()}`;
  } else {
    image.src = `/snapshot/${number}.jpg?${Date.now()}`;
  }
}

// `{person: 2, dog: 1}` as `2 person, 1 dog`, the most first.
function counted(counts) {
  const some = Object.entries(counts ?? {}).filter(([, count]) => count > 0);
  return some.sort((a, b) => b[1] - a[1]).map(([name, count]) => `${count} ${name}`).join(", ");
}

// What happened so far: who came, who crossed which line, who is in which zone.
function happened(objects) {
  if (!objects) return [];
  const rows = [["appeared", counted(objects.appeared) || "none"]];
  for (const [name, both] of Object.entries(objects.lines)) {
    rows.push([name, `in ${counted(both.in) || 0}; out ${counted(both.out) || 0}`]);
  }
  for (const [name, zone] of Object.entries(objects.zones)) {
    rows.push([name, `now ${counted(zone.present) || "nobody"}; entered ${counted(zone.entered) || 0}`]);
  }
  return rows;
}

function list(element, rows) {
  element.hidden = rows.length === 0;
  element.replaceChildren(
    ...rows.map(([name, value]) => {
      const row = document.createElement("li");
      const label = document.createElement("b");
      label.textContent = name;
      row.append(label, ` ${value}`);
      return row;
    }),
  );
}

function update(figure, view, source) {
  const age = source?.frame_age_ms?.p95;
  figure.querySelector(".fps").textContent = text(rounded(view.fps, 1));
  figure.querySelector(".age").textContent = text(rounded(age ?? view.age_ms, 0), " ms");
  figure.querySelector(".dropped").textContent = text(source?.dropped ?? view.dropped);
  figure.querySelector(".reconnects").textContent = text(source?.reconnects);
  const time = figure.querySelector("time");
  time.dateTime = view.time ?? "";
  time.textContent = view.time === null ? "" : new Date(view.time).toLocaleTimeString();
  figure.querySelector(".seen").textContent = view.seen === null ? "" : counted(view.seen) || "nothing to be seen";
  list(figure.querySelector(".counts"), happened(source?.objects));
  // The banner is in the picture, where other viewers see it, too; these words are for those who hear the page.
  const stale = figure.querySelector(".stale");
  stale.hidden = view.stale_s === null;
  stale.textContent = view.stale_s === null ? "" : `no frame for ${seconds(view.stale_s)}`;
  const error = figure.querySelector(".error");
  error.hidden = !source?.error;
  error.textContent = source?.error ?? "";
}

function complain(message) {
  const trouble = document.getElementById("trouble");
  trouble.hidden = message === "";
  trouble.textContent = message;
}

async function poll() {
  try {
    const answer = await fetch(`${location.origin}/stats.json`, { cache: "no-store", signal: AbortSignal.timeout(5 * POLL_MS) });
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    const stats = await answer.json();
    const sources = new Map((stats.sources ?? []).map((source) => [source.source, source]));
    stats.views.forEach((view, number) => {
      if (number >= figures.length) addFigure(view, number);
      else if (!reachable || number >= LIVE_VIEWS) show(number);
      update(figures[number], view, sources.get(view.source));
    });
    document.getElementById("loop").textContent = [stats.backend, stats.precision].filter(Boolean).join(", ");
    reachable = true;
    complain("");
  } catch (error) {
    reachable = false;
    complain(`The camera program does not answer; what you see is old. (${error.message})`);
  }
  setTimeout(poll, POLL_MS);
}

document.addEventListener("visibilitychange", () => figures.forEach((_, number) => show(number)));
poll();
