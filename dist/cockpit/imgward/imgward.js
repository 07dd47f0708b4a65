// The page asks each view's daemon over its control socket (docs/control.md), as root, and draws what it answers. There is no
// server, port or login of its own: Cockpit has those.
"use strict";

const superuser = { superuser: "require" };

// Cockpit would send the socket's path as Host, which a server of Go's answers with 400.
const headers = { Host: "imgward" };

const element = (name, text, ...children) => {
    const e = document.createElement(name);
    if (text !== undefined)
        e.textContent = text;
    e.append(...children);
    return e;
};

const row = (...cells) => element("tr", "", ...cells.map(c => c instanceof Node ? element("td", "", c) : element("td", c)));

const button = (text, onclick) => Object.assign(element("button", text), { onclick });

// Answers are JSON, one object a line.
const objects = text => text.split("\n").filter(line => line.trim()).map(line => JSON.parse(line));

// What an exception must allow so that the refused command gets to its end: who truncates goes on to write.
const needed = op => op === "unlink" || op === "set-flags" ? [op] :
    op.startsWith("rename") || op === "replace" ? ["rename"] : ["truncate", "write"];

const deeds = {
    write: "write to", "write-data": "write to", truncate: "truncate", fallocate: "change the allocation of", "copy-into": "copy into",
    unlink: "remove", rename: "rename", replace: "replace", "rename-dir": "rename a directory above", "set-flags": "change the flags of",
};

const clock = time => new Date(time).toLocaleString();

// describe says what a use is, as `imgward status` does.
function describe(use) {
    const what = use.target ? `${use.target} (${use.role})` : use.role;
    const who = use.domain || use.program || (use.pid ? "a process" : "a process that is not known");
    return `${what} of ${who}` + (use.pid ? `, pid ${use.pid}` : "") + ` [${use.evidence}]`;
}

// send sends what changes something. What a daemon says of a request that it does not grant is the message of the error.
const send = (http, request) => new Promise((resolve, reject) => {
    http.request({ headers: { "Content-Type": "application/json" }, body: "", ...request })
            .then(resolve, (error, answer) => {
                try {
                    reject(new Error(objects(answer)[0].message));
                } catch (_) {
                    reject(error); // no JSON: it comes from on the way
                }
            });
});

// run runs a command as root and returns what it prints. (Cockpit's promises are older than await, and throw on their own.)
const run = (...command) => new Promise((resolve, reject) => {
    cockpit.spawn(command, { ...superuser, err: "message" }).then(resolve, reject);
});

const failure = error => error.message || String(error);

class View {
    constructor(socket) {
        this.http = cockpit.http(socket, { ...superuser, headers });
        this.socket = socket;
        this.section = document.getElementById("view").content.firstElementChild.cloneNode(true);
        this.last = 0; // the newest event that is shown
        document.getElementById("views").append(this.section);
    }

    part(selector) { return this.section.querySelector(selector); }

    fill(table, rows) { this.part(`.${table} tbody`).replaceChildren(...rows); }

    start() {
        this.part("h1").textContent = this.socket;
        this.refresh();
        this.follow();
        this.timer = setInterval(() => this.refresh(), 10000);
    }

    // say shows what went wrong, until the next answer.
    say(text) { this.part(".warnings").replaceChildren(element("li", text)); }

    // refresh asks again. What is shown must not pass for an answer when there is none.
    async refresh() {
        this.outdated = true;
        if (this.asking) {
            if (Date.now() - this.asking > 9000)
                this.say("The view does not answer. What is shown here is old.");
            return;
        }
        while (this.outdated) {
            this.outdated = false;
            this.asking = Date.now();
            try {
                await this.ask();
            } catch (error) {
                this.say(`The view does not answer (${failure(error)}). What is shown here is old.`);
            }
        }
        this.asking = 0;
    }

    async ask() {
        const answer = objects(await this.http.get("/v1/status"));
        const view = answer.find(o => o.type === "view");
        this.mountpoint = view.mountpoint;
        this.part("h1").textContent = view.mountpoint;
        this.part(".serves").textContent = (view.protected ? "Protected" : `NOT protected: ${view.unprotected}`) +
            ` since ${clock(view.mounted)}, ${view.refusals} refused. Policy: ${view.policy}. imgward ${view.version}.`;
        this.part(".warnings").replaceChildren(...(view.warnings || []).map(w => element("li", w)));
        this.fill("exceptions", answer.filter(o => o.type === "exception").map(e => row(e.path, e.ops.replaceAll(",", ", ") + (e.once ? ", once" : ""),
            clock(e.expires), e.reason, button("Revoke", () => this.revoke(e.id).catch(error => this.say(`It was not revoked: ${failure(error)}.`))))));
        const images = answer.filter(o => o.type === "image");
        this.fill("images", images.map(i => row(i.path,
            element("div", "", ...i.uses.map(u => element("div", describe(u))), ...(i.unprotected ? [element("b", i.unprotected)] : [])),
            button("Allow…", () => this.allow(i.path, ["truncate", "write"])))));
        const chains = JSON.stringify(images);
        if (chains !== this.drawn) {
            const svg = await run("imgward", "graph", "--format", "svg", view.mountpoint);
            this.part(".chains img").src = "data:image/svg+xml," + encodeURIComponent(svg);
            this.drawn = chains;
        }
    }

    // follow shows events as they come. The stream ends with the worker that sends it: the next one goes on where it was.
    follow() {
        let rest = "";
        const again = () => { this.again = setTimeout(() => this.follow(), 1000); };
        this.http.get("/v1/events", { follow: 1, after: this.last }).stream(data => {
            const lines = (rest + data).split("\n");
            rest = lines.pop();
            lines.filter(l => l.trim()).forEach(line => this.event(JSON.parse(line)));
        })
                .then(again, again);
    }

    event(e) {
        this.last = Math.max(this.last, e.id || 0);
        clearTimeout(this.soon);
        this.soon = setTimeout(() => this.refresh(), 200);
        if (e.type !== "refusal")
            return;
        const line = row(clock(e.time), `${e.comm} (pid ${e.pid})`, `${deeds[e.op] || e.op} ${e.path}` + (e.audit ? " (only logged)" : ""), e.reason,
            button("Allow…", () => this.allow(e.path, needed(e.op))));
        line.className = e.audit ? "audit" : "";
        this.part(".refusals tbody").prepend(line);
        while (this.part(".refusals tbody").rows.length > 100)
            this.part(".refusals tbody").lastChild.remove();
    }

    // allow grants an exception when its dialog is filled in.
    allow(path, ops) {
        const dialog = document.getElementById("allow");
        const form = dialog.querySelector("form");
        form.reset();
        form.querySelector(".path").textContent = path;
        form.querySelector(".error").textContent = "";
        form.querySelectorAll("fieldset label").forEach(l => l.remove());
        for (const op of ["truncate", "write", "unlink", "rename", "set-flags"]) {
            const box = Object.assign(element("input"), { type: "checkbox", name: "op", value: op, checked: ops.includes(op) });
            form.querySelector("fieldset").append(element("label", "", box, ` ${op}`));
        }
        form.onsubmit = async event => {
            if (event.submitter && event.submitter.value === "cancel")
                return;
            event.preventDefault();
            const data = new FormData(form);
            const wanted = {
                path, ops: data.getAll("op").join(","), seconds: 60 * Number(data.get("minutes")), once: data.has("once"), reason: data.get("reason").trim(),
            };
            try {
                await send(this.http, { method: "POST", path: "/v1/allow", body: JSON.stringify(wanted) });
                dialog.close();
                await this.refresh();
            } catch (error) {
                form.querySelector(".error").textContent = failure(error);
            }
        };
        dialog.showModal();
    }

    async revoke(id) {
        await send(this.http, { method: "DELETE", path: `/v1/exceptions/${id}` });
        await this.refresh();
    }

    end() {
        clearInterval(this.timer);
        clearTimeout(this.again);
        clearTimeout(this.soon);
        this.http.close();
        this.section.remove();
    }
}

// The views that there are: each has a socket in a directory of its own (@guard is the second layer, which is no view).
async function look(views) {
    const state = document.getElementById("state");
    let sockets = [];
    try {
        const found = await run("sh", "-c", "cd /run/imgward 2>/dev/null && find . -name control.sock -not -path './@*' || true");
        sockets = found.split("\n").filter(s => s).map(s => s.replace(".", "/run/imgward"));
        state.textContent = sockets.length ? "" : "No view is mounted: nothing is protected. See imgward mount --help.";
    } catch (ex) {
        state.textContent = ex.problem === "access-denied" ? "Switch to administrative access to see what is protected." : failure(ex);
    }
    for (const [socket, view] of views) {
        if (!sockets.includes(socket)) {
            view.end();
            views.delete(socket);
        }
    }
    for (const socket of sockets) {
        if (views.has(socket))
            continue;
        const view = new View(socket);
        views.set(socket, view);
        view.start();
    }
}

// Dark or light, as it is chosen in Cockpit; else as the browser has it.
function dress(style) {
    const chosen = style || localStorage.getItem("shell:style");
    document.documentElement.style.colorScheme = chosen === "dark" || chosen === "light" ? chosen : "";
}

dress();
window.addEventListener("storage", () => dress());
window.addEventListener("cockpit-style", event => dress(event.detail.style));

const views = new Map();
cockpit.transport.wait(() => {
    look(views);
    setInterval(() => look(views), 5000);
});
