// The page's copy of the tree of moments: moments by number, their lanes in the drawing, and the selected branch.

export class Moments {
  constructor() { this.clear(); }

  clear() {
    this.all = new Map();
    this.lanes = 0;
    this.line = [];  // numbers from the root to the end of the selected branch
    this.now = null;
  }

  // parent: a number or null; strip: the numbers drawn over time.
  add(number, parent, step, strip) {
    const above = this.all.get(parent);
    if (!above) this.clear();
    const lane = above && above.children.length === 0 ? above.lane : this.lanes++;
    this.all.set(number, { number, parent, step, lane, children: [], ...strip });
    if (above) above.children.push(number);
    const at = this.line.indexOf(parent);
    this.line = [...this.line.slice(0, at + 1), number];
  }

  go(number) {
    this.now = number;
    if (this.line.includes(number)) return;
    this.line = this.path(number);
    for (let one = this.all.get(number); one && one.children.length; ) {
      one = this.all.get(one.children.at(-1));
      this.line.push(one.number);
    }
  }

  path(number) {
    const path = [];
    for (let one = this.all.get(number); one; one = this.all.get(one.parent)) path.push(one.number);
    return path.reverse();
  }

  // The server has deleted everything but this moment and its descendants.
  prune(root) {
    const first = this.all.get(root);
    if (!first || !this.all.has(first.parent)) return;
    const kept = new Map(), waiting = [root];
    while (waiting.length) {
      const one = this.all.get(waiting.pop());
      kept.set(one.number, one);
      waiting.push(...one.children);
    }
    this.all = kept;
    this.line = this.line.filter((number) => kept.has(number));
  }

  tips() { return [...this.all.values()].filter((one) => one.children.length === 0); }
}
