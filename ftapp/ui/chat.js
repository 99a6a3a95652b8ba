// The conversation in the browser: answers grow here, copying and editing happen here, the rest is told to the page.
const LABELS = { edit: "Ask again", correct: "Keep as a row" };
const open = new Set();

const tell = (what, node, text) =>
  trigger("click", {
    what,
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

const edit = (what, holder, content) => {
  if (holder.querySelector(".editing")) return;
  const form = document.createElement("form");
  form.className = "editing";
  const area = document.createElement("textarea");
  area.value = content.textContent;
  area.rows = Math.min(12, 1 + area.value.split("\n").length + Math.floor(area.value.length / 70));
  area.setAttribute("aria-label", what === "edit" ? "Your question" : "The right answer");
  const save = Object.assign(document.createElement("button"), { type: "submit", textContent: LABELS[what] });
  const cancel = Object.assign(document.createElement("button"), { type: "button", textContent: "Cancel" });
  const close = () => {
    form.remove();
    holder.classList.remove("edited");
  };
  cancel.onclick = close;
  form.onsubmit = (event) => {
    event.preventDefault();
    if (area.value.trim()) tell(what, holder, area.value);
    close();
  };
  area.onkeydown = (event) => {
    if (event.key === "Escape") close();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  };
  form.append(area, save, cancel);
  holder.classList.add("edited");
  content.after(form);
  area.focus();
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button || (element.querySelector(".growing") && button.dataset.do !== "copy")) return;
  const holder = button.closest(".ft-answer, .ft-turn");
  const content = holder.querySelector(".content");
  const what = button.dataset.do;
  if (what === "copy") copy(content.textContent, button);
  else if (what === "good") tell(what, holder, "");
  else edit(what, holder, content);
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
