// The socket: what is asked goes out, words and moments come in. The program sends a moment only once an earlier one is
// drawn, and this side asks for a moment only once an earlier one has come: neither piles up where a machine is slow.

export class Link {
  // on: heard(content), seen(buffer), lost(text).
  constructor(on) {
    this.on = on;
    this.tries = 0;
    this.waiting = false;  // for a moment that was asked for
    this.next = null;  // the newest of those that were asked for meanwhile
    this.connect();
  }

  connect() {
    const token = new URLSearchParams(location.search).get("token");
    const parameters = new URLSearchParams({ dream: sessionStorage.getItem("dream") ?? "" });
    if (token) parameters.set("token", token);
    this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws?${parameters}`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = (event) => (typeof event.data === "string" ? this.heard(JSON.parse(event.data)) : this.seen(event.data));
    this.socket.onclose = (event) => this.closed(event);
  }

  heard(content) {
    this.tries = 0;
    if (content.dream) sessionStorage.setItem("dream", content.dream);
    this.on.heard(content);
  }

  seen(buffer) {
    this.waiting = false;
    if (this.next) {
      const message = this.next;
      this.next = null;
      this.askMoment(message);
    }
    this.on.seen(buffer);
  }

  closed(event) {
    this.waiting = false;
    this.next = null;
    if (event.reason === "opened in another window") return this.on.lost("This dream is open in another window. Reload this page to have it here.");
    if ([4001, 1008, 1011].includes(event.code)) return this.on.lost(event.reason);
    this.tries += 1;
    this.on.lost("The program has ended, or does not answer. Once it runs again, this page goes on.");
    setTimeout(() => this.connect(), Math.min(500 * this.tries, 5000));
  }

  ask(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  // Asks for another moment (a slider, a key that repeats): while one is on its way, only the newest wish is kept.
  askMoment(message) {
    if (this.waiting) this.next = message;
    else this.ask(message);
    this.waiting = true;
  }
}
