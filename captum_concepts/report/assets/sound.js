// ---- sound: players that create their <audio> on the first click --------------------------------------------------
let sounds = null; // parsed on the first click: the page draws before megabytes of sound are parsed
let playing = null;

function source(index) {
  sounds ??= JSON.parse(byId("sounds").textContent);
  return DATA.inline ? `data:audio/mpeg;base64,${sounds[index]}` : sounds[index];
}
const clipTitle = (clip) => clip.name + (clip.group ? ` · ${clip.group}` : "");

/** A play button with a position slider. `onTime(seconds)` follows playback; null when it stops for another sound. */
function player(clip, { compact = false, label = clip.name, onTime = () => {} } = {}) {
  if (clip.sound == null) {
    return compact ? null : el("div", { class: "player silent" },
      el("span", { class: "player-name" }, named(clip.name, 60)), el("span", { class: "soft" }, clip.missing ?? "No sound."));
  }
  let audio = null, frame = 0;
  const button = el("button", { class: "play", type: "button", "aria-label": `Play ${cut(flat(label), 60)}`, title: compact ? "Play an example" : "Play" });
  const seek = el("input", { type: "range", min: 0, max: clip.seconds, step: 0.01, value: 0, "aria-label": "Position in seconds" });
  const time = el("span", { class: "soft time" }, length(clip.seconds));
  const box = el("div", { class: compact ? "player compact" : "player" }, button);
  if (!compact) box.append(el("div", { class: "player-body" }, el("span", { class: "player-name", title: clipTitle(clip) }, named(clip.name, 60)), seek), time);

  const follow = () => {
    seek.value = audio.currentTime;
    seek.style.setProperty("--played", `${(100 * audio.currentTime) / clip.seconds}%`);
    time.textContent = `${length(audio.currentTime)} / ${length(clip.seconds)}`;
    onTime(audio.currentTime);
    if (!audio.paused && box.isConnected) frame = requestAnimationFrame(follow);
    else if (!box.isConnected) audio.pause();
  };
  const ready = () => {
    if (audio) return audio;
    audio = el("audio", { preload: "auto", src: source(clip.sound) });
    audio.addEventListener("play", () => {
      if (playing && playing !== audio) playing.pause();
      playing = audio;
      button.classList.add("on");
      cancelAnimationFrame(frame);
      follow();
    });
    audio.addEventListener("pause", () => button.classList.remove("on"));
    audio.addEventListener("seeked", follow);
    audio.addEventListener("error", () => { time.textContent = "cannot be played"; });
    box.append(audio);
    return audio;
  };
  const toggle = () => {
    if (!ready().paused) audio.pause();
    else audio.play().catch((error) => { if (error.name !== "AbortError") time.textContent = "cannot be played"; });
  };
  button.addEventListener("click", (event) => { event.stopPropagation(); toggle(); });
  seek.addEventListener("input", () => { ready().currentTime = Number(seek.value); });
  box.goTo = (at) => { ready().currentTime = clamp(at, 0, clip.seconds); };
  return box;
}
