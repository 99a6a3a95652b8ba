// The conversation in the browser: answers grow here, copying and editing happen here, the rest is told to the page.
const WAYS = { edit: ["edit", "Ask again"], correct: ["like", "Keep as a row"] };
const open = new Set();
const edits = new Map(); // by the selector of the button that opened it
let typing = null;

const tell = (event, node, text) =>
  trigger(event, {
    at: Number(node.closest("[data-at]").dataset.at),
    voice: node.closest("[data-voice]")?.dataset.voice ?? "",
    text,
  });

const copy = async (text, button) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea"); // without https there is no clipboard
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
};

const holderOf = (node) => node?.closest(".ft-answer, .ft-turn");
const said = (holder) => holder?.querySelector(".content").textContent;

const show = ({ form, area }, holder) => {
  holder.classList.add("edited");
  holder.querySelector(".content").after(form);
  if (typing === area && document.activeElement === document.body) area.focus({ preventScroll: true });
};

const edit = (what, holder) => {
  if (holder.querySelector(".editing")) return;
  const [event, label] = WAYS[what];
  const { at } = holder.closest("[data-at]").dataset;
  const key = `[data-at="${at}"] ${what === "edit" ? "" : `[data-voice="${holder.dataset.voice}"] `}[data-do="${what}"]`;
  const form = document.createElement("form");
  form.className = "editing";
  const area = document.createElement("textarea");
  area.value = said(holder);
  area.rows = Math.min(12, 1 + area.value.split("\n").length + Math.floor(area.value.length / 70));
  area.setAttribute("aria-label", what === "edit" ? "Your question" : "The right answer");
  const save = Object.assign(document.createElement("button"), { type: "submit", textContent: label });
  const cancel = Object.assign(document.createElement("button"), { type: "button", textContent: "Cancel" });
  const one = { form, area, from: said(holder), sent: null };
  one.free = () => Object.assign(save, { disabled: false, textContent: label });
  const close = () => {
    edits.delete(key);
    form.parentElement.classList.remove("edited");
    form.remove();
  };
  cancel.onclick = close;
  form.onsubmit = (submitted) => {
    submitted.preventDefault();
    if (!area.value.trim()) return close();
    one.sent = area.value;
    tell(event, form, one.sent);
    if (one.sent === said(form.parentElement)) close(); // nothing that could be lost
    else Object.assign(save, { disabled: true, textContent: "Sending …" });
  };
  area.oninput = one.free;
  area.onkeydown = (pressed) => {
    if (pressed.key === "Escape") close();
    if (pressed.key === "Enter" && (pressed.ctrlKey || pressed.metaKey)) form.requestSubmit();
  };
  area.onfocus = () => (typing = area);
  // later: a redraw takes the focus, too, and gives it back at once
  area.onblur = () => setTimeout(() => (typing = document.activeElement === typing ? typing : null));
  form.append(area, save, cancel);
  edits.set(key, one);
  show(one, holder);
  area.focus();
};

// A redraw takes every form away. It comes back unless what was sent is there, or something else than was edited; as
// long as an answer is written it is not known which: if that fails, what was there before is drawn again.
const settle = () => {
  const growing = element.querySelector(".growing");
  for (const [key, one] of edits) {
    if (one.form.isConnected) continue;
    const holder = holderOf(element.querySelector(key));
    const now = said(holder);
    const taken = now === one.sent && now === one.area.value;
    if (holder && !taken && (now === one.from || now === one.sent)) show(one, holder);
    else if (!growing) edits.delete(key);
  }
};
element.addEventListener("over", () => edits.forEach((one) => one.free()));

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button || (element.querySelector(".growing") && button.dataset.do !== "copy")) return;
  const holder = holderOf(button);
  const what = button.dataset.do;
  if (what === "copy") copy(said(holder), button);
  else if (what === "good") tell("like", holder);
  else edit(what, holder);
});

// what was unfolded stays so while the answer grows
element.addEventListener(
  "toggle",
  (event) => {
    const key = event.target.dataset.key;
    if (key && event.target.open) open.add(key);
    else open.delete(key);
  },
  true,
);
new MutationObserver(() => {
  for (const one of element.querySelectorAll("details[data-key]:not([open])")) one.open = open.has(one.dataset.key);
  settle();
}).observe(element, { childList: true, subtree: true });

// Answers that grow: whose they are and how many lines are known, then lines of [voice, part, whether it replaces that
// part, text]. Drawing takes a fifth of the time at most: the rest is for whoever wants to press Stop.
const SHARE = 5;
const scroller = element.closest(".html-container");
let growing = { name: 0, lines: 0, parts: {} };
let due = 0;
let waiting = false;

const write = (node, text) => {
  const known = node.textContent;
  if (known === text) return;
  if (!known || !text.startsWith(known)) node.textContent = text;
  else node.lastChild.appendData(text.slice(known.length));
  if (node.dataset.part === "folded") node.parentElement.hidden = !text;
};

const draw = () => {
  waiting = false;
  const began = performance.now();
  const follows = scroller.scrollTop + scroller.offsetHeight >= scroller.scrollHeight - 100;
  for (const node of element.querySelectorAll(".growing [data-part]")) {
    const { voice } = node.closest("[data-voice]").dataset;
    write(node, growing.parts[voice + node.dataset.part] ?? "");
  }
  if (follows) scroller.scrollTop = scroller.scrollHeight;
  due = performance.now() + (SHARE - 1) * (performance.now() - began);
};

element.dataset.chat = "";
element.addEventListener("grown", ({ detail }) => {
  const [[name, known], ...lines] = detail.split("\n").map((line) => JSON.parse(line));
  if (name !== growing.name) growing = { name, lines: 0, parts: {} };
  if (known !== growing.lines) return; // something was lost on the way: the whole answer comes in the end
  growing.lines += lines.length;
  for (const [voice, part, replaces, text] of lines) {
    growing.parts[voice + part] = replaces ? text : (growing.parts[voice + part] ?? "") + text;
  }
  if (waiting) return;
  waiting = true;
  setTimeout(draw, Math.max(0, due - performance.now()));
});
