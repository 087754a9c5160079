'use strict';
(() => {
  const tip = document.getElementById('tip');
  const place = (event) => {
    const box = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const above = event.clientY - box.height - 14;
    tip.style.left = Math.max(8, left) + 'px';
    tip.style.top = (above < 8 ? event.clientY + 18 : above) + 'px';
  };
  document.addEventListener('pointermove', (event) => {
    const target = event.target.closest('[data-tip]');
    tip.hidden = !target;
    if (!target) return;
    tip.textContent = target.dataset.tip;
    place(event);
  });
  document.addEventListener('pointerleave', () => { tip.hidden = true; });

  for (const map of document.querySelectorAll('.map')) {
    const toggle = map.querySelector('.toggle');
    toggle.hidden = false;
    toggle.addEventListener('click', (event) => {
      const show = event.target.dataset.show;
      if (!show) return;
      map.dataset.show = show;
      for (const button of toggle.children)
        button.setAttribute('aria-pressed', button.dataset.show === show);
    });
  }

  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  for (const table of document.querySelectorAll('.sortable')) {
    table.tHead.addEventListener('click', (event) => {
      const head = event.target.closest('button')?.parentElement;
      if (!head) return;
      const up = head.getAttribute('aria-sort') !== 'ascending';
      for (const other of head.parentElement.children) other.removeAttribute('aria-sort');
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const sign = up ? 1 : -1;
      const rows = [...table.tBodies[0].rows];
      const keys = new Map(rows.map((row) => [row, key(row, head.cellIndex)]));
      rows.sort((a, b) => {
        const [x, y] = [keys.get(a), keys.get(b)];
        const order = typeof x === 'number' && typeof y === 'number'
          ? x - y : String(x).localeCompare(String(y), undefined, {numeric: true});
        return sign * order;
      });
      table.tBodies[0].append(...rows);
    });
  }
})();
